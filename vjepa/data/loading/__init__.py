"""From rows to batches: order, decoding, failures, resumable loading."""
