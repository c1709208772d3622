"""A whole study from one configuration: two networks trained, measured from every side, and reported.

``config.resolve(preset, file, settings)`` makes the configuration, ``run.run(config, folder)`` does the rest.
"""
