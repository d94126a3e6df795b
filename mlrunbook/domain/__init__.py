"""Pure decisions: no clock, no network, no Prefect. A verdict comes with the sentence that explains it. May import nothing of ours."""
