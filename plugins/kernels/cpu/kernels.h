// The kernels of this library: loops that the compiler vectorises, float32 on the CPU. A row has the same bits whatever
// stands beside it.
#pragma once
#include <dsengine/kernel.hpp>

#include <deque>

namespace cpu {

// Each file adds its own.
void add_activations(std::deque<dse::Item>& items);
void add_attention(std::deque<dse::Item>& items);
void add_embedding(std::deque<dse::Item>& items);
void add_norms(std::deque<dse::Item>& items);
void add_optimizer(std::deque<dse::Item>& items);
void add_rope(std::deque<dse::Item>& items);

}  // namespace cpu
