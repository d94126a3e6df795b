"""The promises under fire: `python -m benchmarks promises [kills|outages|storm|hostile ...] [--kills N] [--seed S]`.

The shipped flows and the shipped dispatcher run in a child process that is killed with SIGKILL, cut off, lied to or flooded; the outside
world is another process, which survives and counts what really happened. What must come out is nothing: no alert lost, no change made
twice, no page missed, no incident stuck, no attack through.
"""
