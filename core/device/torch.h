// The parts of LibTorch that core uses, and the precompiled header of the folders that do.
#pragma once
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
