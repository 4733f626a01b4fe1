"""Decoder backends, one a file."""

from vjepa.data.decoders.base import DecodeError, Decoder, decoder_class

__all__ = ["DecodeError", "Decoder", "decoder_class"]
