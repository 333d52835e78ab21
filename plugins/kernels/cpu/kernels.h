// The kernels of this library, float32 on the CPU. A row has the same bits whatever stands beside it, with every
// instruction set that there is.
#pragma once
#include <dsengine/kernel.hpp>

#include <deque>

namespace cpu {

// Unsupported where the processor has none of targets.h. The environment's DSENGINE_INSTRUCTION_SET (avx2, avx512) says
// which is the most that may be used; it is read when the library is loaded.
void check_instruction_set();

// Each file adds its own.
void add_activations(std::deque<dse::Item>& items);
void add_attention(std::deque<dse::Item>& items);
void add_cache_write(std::deque<dse::Item>& items);
void add_draw(std::deque<dse::Item>& items);
void add_embedding(std::deque<dse::Item>& items);
void add_head(std::deque<dse::Item>& items);
void add_linear(std::deque<dse::Item>& items);
void add_norms(std::deque<dse::Item>& items);
void add_optimizer(std::deque<dse::Item>& items);
void add_packed(std::deque<dse::Item>& items);
void add_rope(std::deque<dse::Item>& items);

}  // namespace cpu
