"""`make bench`: each module measures one promise as ratios within one run, prints a table and one JSON line."""
