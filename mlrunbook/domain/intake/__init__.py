"""How an alert is read, in pure steps that all formats share: its model, its type, its level, each with the sentence that says why."""
