"""HTTP in, dispatcher out. May import bootstrap, response, store, base, ports and domain; never flows, tasks or prefect."""
