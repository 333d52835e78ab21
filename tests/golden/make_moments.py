#!/usr/bin/env python3
"""8-bit codes as bitsandbytes makes them: its two maps, and rows of numbers block by block -> moments.json.

Rows are quantised one at a time, for here a block has parts of one row only.
"""
import json
from pathlib import Path

import torch
from bitsandbytes.functional import create_dynamic_map, dequantize_blockwise, quantize_blockwise

torch.manual_seed(1234)
noise = torch.randn(2, 300)
wide = noise * torch.exp(4 * torch.randn(2, 300))  # over many decades
wide[1, :256] = 0  # a block of zeros
negative = -wide[:1].abs()  # whose largest magnitude has no code of its own


def case(rows, code):
    quantised = [quantize_blockwise(row, code=code, blocksize=256) for row in rows]
    return {"rows": rows.tolist(),
            "codes": [codes.flatten().tolist() for codes, _ in quantised],
            "scales": [state.absmax.tolist() for _, state in quantised],
            "values": [dequantize_blockwise(codes, state).tolist() for codes, state in quantised]}


signed, unsigned = create_dynamic_map(True), create_dynamic_map(False)
out = {"signed": {"map": signed.tolist(), **case(torch.cat([noise, wide, negative]), signed)},
       "unsigned": {"map": unsigned.tolist(), **case(torch.cat([noise**2, wide**2]), unsigned)}}
Path(__file__).with_name("moments.json").write_text(json.dumps(out) + "\n")
