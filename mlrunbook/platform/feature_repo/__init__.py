"""The fleet's feature store on Feast: definitions, and the repository folder that they are applied from."""
