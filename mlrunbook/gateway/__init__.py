"""HTTP in, dispatcher out. May import bootstrap, response, store, base and domain; never flows, tasks or prefect."""
