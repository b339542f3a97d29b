"""One run on many processes: losses travel between them, and nothing else.

group.py        the processes, and what they say to each other
work.py         which of them evaluates what
engine.py       an engine that shares a step's probes among them
checks.py       that all of them hold the same model, data and weights
interrupts.py   a signal to one of them ends all at the same step
start.py        a run's first words: who is there, and that they agree
"""
