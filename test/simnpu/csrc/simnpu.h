// A simulated npu: tensors of a device of their own whose bytes lie in host memory.
//
// runtime.cpp   devices, memory, streams, generators, and what is recorded for the tests
// kernels.cpp   the operators that make, copy or read tensors, and the convolutions
// fallback.cpp  every other operator: the CPU's kernel on the same bytes
// autocast.cpp  mixed precision
// hccl.cpp      the process group
// python.cpp    what Python sees
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <string>
#include <vector>

namespace simnpu {

constexpr auto kNpu = c10::DeviceType::PrivateUse1;

// ---- devices ----

int num_devices();
c10::DeviceIndex current_device();
void set_device(c10::DeviceIndex index);
c10::Device with_index(c10::Device device);  // `npu` without an index is the current one
c10::Allocator* allocator();                 // allocates on the current device
const at::Generator& default_generator(c10::DeviceIndex index);
at::Generator cpu_twin(const at::Generator& generator);  // does the CPU kernels' drawing for it

// Throws where this process was forked from one that had used the device, as torch_npu does.
void use_device();
bool is_initialized();
bool is_in_bad_fork();

struct MemoryUse {
  int64_t now = 0;
  int64_t peak = 0;
};
MemoryUse memory_use(c10::DeviceIndex index);
void reset_peak(c10::DeviceIndex index);
bool is_pinned(const void* pointer);

// ---- what tests read ----

struct Event {
  std::string kind;
  std::string dtype;
  int64_t numel;
};
void note(std::string kind, std::string dtype = "", int64_t numel = 0);
std::vector<Event> events();

// ---- tensors ----

// A CPU tensor of the same bytes as a device's.
at::Tensor same_bytes(const at::Tensor& tensor);
// A tensor on `device` with the content of one on the CPU; not a transfer that is recorded.
at::Tensor moved(const at::Tensor& cpu_tensor, c10::Device device);

}  // namespace simnpu
