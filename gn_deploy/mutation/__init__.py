"""Faults seeded into ONNX models, one GroupNorm at a time, to see whether a comparison would have noticed."""
