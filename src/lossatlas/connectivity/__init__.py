"""Are two minima connected, and how high is the ground between them?"""
