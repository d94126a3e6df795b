"""A team's predictions and outcomes where they are kept: Parquet, CSV and Delta folders, PostgreSQL, any database that ibis reaches."""
