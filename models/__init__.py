"""Networks, the stack that trains many replicas of one at once, gradient shaping, privacy, and checkpoints."""
