// The operators that make, copy or read tensors, and the convolutions; the rest falls back.
#include "simnpu.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ops/_local_scalar_dense.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <cstring>

namespace simnpu {
namespace {

using at::Tensor;
using c10::IntArrayRef;
using c10::SymIntArrayRef;

template <typename T>
using Maybe = std::optional<T>;

c10::Device device_or_current(Maybe<c10::Device> device) {
  return with_index(device.value_or(c10::Device(kNpu)));
}

c10::DispatchKeySet keys() {
  return c10::DispatchKeySet(c10::DispatchKey::PrivateUse1);
}

Tensor empty(
    IntArrayRef sizes,
    Maybe<at::ScalarType> dtype,
    Maybe<at::Layout>,
    Maybe<c10::Device> device,
    Maybe<bool>,
    Maybe<at::MemoryFormat> format) {
  TORCH_CHECK(
      !format || *format == at::MemoryFormat::Contiguous || *format == at::MemoryFormat::Preserve,
      "Only contiguous_format or preserve_format is supported.");
  const c10::DeviceGuard guard(device_or_current(device));
  return at::detail::empty_generic(
      sizes, allocator(), keys(), c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(
    IntArrayRef sizes,
    IntArrayRef strides,
    Maybe<at::ScalarType> dtype,
    Maybe<at::Layout>,
    Maybe<c10::Device> device,
    Maybe<bool>) {
  const c10::DeviceGuard guard(device_or_current(device));
  return at::detail::empty_strided_generic(
      sizes, strides, allocator(), keys(), c10::dtype_or_default(dtype));
}

// A kernel of its own, since a fallback on an alias could not give the tensor new memory.
const Tensor& resize_(const Tensor& self, IntArrayRef sizes, Maybe<at::MemoryFormat> format) {
  const c10::DeviceGuard guard(self.device());
  return at::native::resize_(self, sizes, format);
}

Tensor& set_storage_(
    Tensor& self, at::Storage source, int64_t offset, IntArrayRef sizes, IntArrayRef strides) {
  return at::native::set_storage_cpu_(self, std::move(source), offset, sizes, strides);
}

Tensor copy_from(const Tensor& self, const Tensor& to, bool) {
  use_device();
  const bool from_npu = self.device().type() == kNpu, to_npu = to.device().type() == kNpu;
  if (from_npu != to_npu) {
    note(from_npu ? "to host" : "to device", c10::toString(self.scalar_type()), self.numel());
    // Such a copy makes the host wait.
    if (to_npu && self.numel() > 1 && !is_pinned(self.const_data_ptr())) note("not pinned");
  }
  (to_npu ? same_bytes(to) : to).copy_(from_npu ? same_bytes(self) : self);
  return to;
}

Tensor copy_from_and_resize(const Tensor& self, const Tensor& to) {
  to.resize_(self.sizes());
  return copy_from(self, to, false);
}

at::Scalar local_scalar_dense(const Tensor& self) {
  use_device();
  note("to host", c10::toString(self.scalar_type()), 1);
  return at::_local_scalar_dense(same_bytes(self));
}

void record_stream(Tensor&, c10::Stream) {}

// Half goes through float32, in which an npu accumulates too; the CPU has no fast kernel for it.
bool is_half(const Tensor& tensor) {
  return tensor.scalar_type() == at::kHalf;
}

Tensor operand(const Tensor& tensor) {
  if (!tensor.defined()) return tensor;
  return is_half(tensor) ? same_bytes(tensor).to(at::kFloat) : same_bytes(tensor);
}

void check_same_device(const Tensor& first, const Tensor& second) {
  TORCH_CHECK(
      first.device() == second.device() && first.scalar_type() == second.scalar_type(),
      "Input (", first.device(), ", ", first.scalar_type(), ") and weight (", second.device(),
      ", ", second.scalar_type(), ") should be of one device and one type");
}

Tensor convolution(
    const Tensor& input,
    const Tensor& weight,
    const Maybe<Tensor>& bias,
    IntArrayRef stride,
    IntArrayRef padding,
    IntArrayRef dilation,
    bool transposed,
    IntArrayRef output_padding,
    int64_t groups) {
  check_same_device(input, weight);
  note("forward", c10::toString(input.scalar_type()));
  Maybe<Tensor> bias_operand;
  if (bias && bias->defined()) bias_operand = operand(*bias);
  const Tensor result = at::convolution(
      operand(input), operand(weight), bias_operand, stride, padding, dilation, transposed,
      output_padding, groups);
  return moved(result.to(input.scalar_type()).contiguous(), input.device());
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& gradient,
    const Tensor& input,
    const Tensor& weight,
    IntArrayRef stride,
    IntArrayRef padding,
    IntArrayRef dilation,
    bool transposed,
    IntArrayRef output_padding,
    int64_t groups,
    std::array<bool, 3> wanted) {
  check_same_device(input, weight);
  check_same_device(gradient, input);
  note("backward", c10::toString(gradient.scalar_type()));
  const int64_t num_outputs = gradient.size(1);
  const auto results = at::convolution_backward(
      operand(gradient), operand(input), operand(weight), IntArrayRef(num_outputs), stride,
      padding, dilation, transposed, output_padding, groups, wanted);
  const auto back = [&](const Tensor& result) {
    if (!result.defined()) return result;
    return moved(result.to(input.scalar_type()).contiguous(), input.device());
  };
  return {back(std::get<0>(results)), back(std::get<1>(results)), back(std::get<2>(results))};
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", TORCH_FN(empty));
  library.impl("empty_strided", TORCH_FN(empty_strided));
  library.impl("resize_", TORCH_FN(resize_));
  library.impl("set_.source_Storage_storage_offset", TORCH_FN(set_storage_));
  library.impl("_copy_from", TORCH_FN(copy_from));
  library.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
  library.impl("_local_scalar_dense", TORCH_FN(local_scalar_dense));
  library.impl("record_stream", TORCH_FN(record_stream));
  library.impl("convolution_overrideable", TORCH_FN(convolution));
  library.impl("convolution_backward_overrideable", TORCH_FN(convolution_backward));
}

}  // namespace

Tensor moved(const Tensor& cpu_tensor, c10::Device device) {
  const Tensor source =
      cpu_tensor.is_non_overlapping_and_dense() ? cpu_tensor : cpu_tensor.contiguous();
  const Tensor result = at::empty_strided(
      source.sizes(), source.strides(), source.options().device(device).pinned_memory(false));
  if (source.numel() > 0) {
    std::memcpy(result.mutable_data_ptr(), source.const_data_ptr(), source.nbytes());
  }
  return result;
}

}  // namespace simnpu
