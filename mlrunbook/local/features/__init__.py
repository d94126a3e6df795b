"""The fleet's feature store on Feast: definitions, the folder they are applied from, the lake, the job. May import adapters, base and
domain.
"""
