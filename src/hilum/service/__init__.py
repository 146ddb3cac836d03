"""The REST service; needs the ``serve`` extra. ``hilum.service.api`` has the application."""
