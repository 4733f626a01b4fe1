"""Decoder backends, one a file."""

from vjepa.data.decoders.base import Decoder, decoder_class
from vjepa.errors import DecodeError

__all__ = ["DecodeError", "Decoder", "decoder_class"]
