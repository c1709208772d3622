"""A whole study from one configuration: networks trained, measured, and reported.

``config.resolve(preset, file, settings)`` makes the configuration, ``run.run(config, folder)`` does the rest.
"""
