"""The REST service; needs the ``serve`` extra. ``hilum.serving.api`` has the application."""
