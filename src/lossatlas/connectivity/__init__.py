"""Are two minima connected, and how high is the loss between them?"""
