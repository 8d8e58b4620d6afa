"""People in a frame, by any of the usual ONNX detectors."""

from edge.detect.detector import Detector, open_detector

__all__ = ["Detector", "open_detector"]
