"""What both ends of the wire share, and nothing more."""

__version__ = "0.1.0"
WIRE_VERSION = 1
SOFTWARE = f"edge-reid/{__version__}"
