"""Decoders: backends in one file each, and what chooses, limits and indexes them."""

from vjepa.data.decoders.base import Decoder, decoder_class
from vjepa.errors import DecodeError

__all__ = ["DecodeError", "Decoder", "decoder_class"]
