// Every operator without a kernel here: the CPU's kernel, run on CPU tensors of the same bytes.
// So in-place operators, outputs and hidden changes (BatchNorm's statistics) come out right.
#include "simnpu.h"

#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/enum_tag.h>
#include <ATen/core/jit_type.h>
#include <ATen/core/stack.h>
#include <c10/core/CPUAllocator.h>
#include <torch/library.h>

#include <cstring>

namespace simnpu {
namespace {

using at::Tensor;
using c10::IValue;

// One call: its device tensors, each beside the CPU tensor that stands for it.
class Call {
 public:
  explicit Call(const c10::OperatorHandle& op) : op_(op), schema_(op.schema()) {}

  void run(torch::jit::Stack* stack) {
    use_device();
    // The host has to know how much comes out before it can go on.
    if (size_depends_on_data(*stack)) note("to host", "", 1);
    translate_arguments(stack);
    if (pairs_.empty() && !device_) device_ = c10::Device(kNpu, current_device());
    op_.callBoxedForDispatchKey(c10::DispatchKey::CPU, *stack);
    for (const auto& [tensor, stand_in] : pairs_) take_over_resize(tensor, stand_in);
    auto results = torch::jit::last(*stack, schema_.returns().size());
    for (size_t i = 0; i < results.size(); ++i) {
      (*stack)[stack->size() - results.size() + i] = translated_back(results[i]);
    }
  }

 private:
  void translate_arguments(torch::jit::Stack* stack) {
    const auto& arguments = schema_.arguments();
    const size_t first = stack->size() - arguments.size();
    for (size_t i = 0; i < arguments.size(); ++i) find_device((*stack)[first + i]);
    for (size_t i = 0; i < arguments.size(); ++i) {
      IValue& value = (*stack)[first + i];
      if (is_generator(*arguments[i].type())) {
        const bool given = value.isGenerator() && value.toGenerator().defined();
        value = cpu_twin(given ? value.toGenerator() : default_generator(device_index()));
      } else {
        value = translated(value);
      }
    }
  }

  bool size_depends_on_data(const torch::jit::Stack& stack) const {
    const std::string& name = schema_.name();
    if (name != "aten::index" && name != "aten::index_put_" && name != "aten::_index_put_impl_") {
      return op_.hasTag(at::Tag::dynamic_output_shape);
    }
    // Only a mask among the indices does: its true places are counted.
    const IValue& indices = torch::jit::peek(stack, 1, schema_.arguments().size());
    for (const std::optional<Tensor>& index : indices.toOptionalTensorVector()) {
      if (!index || !index->defined()) continue;
      if (index->scalar_type() == at::kBool || index->scalar_type() == at::kByte) return true;
    }
    return false;
  }

  static bool is_generator(const c10::Type& type) {
    if (type.kind() == c10::TypeKind::GeneratorType) return true;
    const auto* optional = type.castRaw<c10::OptionalType>();
    return optional != nullptr && is_generator(*optional->getElementType());
  }

  c10::DeviceIndex device_index() const { return device_ ? device_->index() : current_device(); }

  void find_device(const IValue& value) {
    if (value.isTensor()) {
      const Tensor& tensor = value.toTensor();
      if (tensor.defined() && tensor.device().type() == kNpu && !device_) {
        device_ = tensor.device();
      }
    } else if (value.isList()) {
      for (const IValue& element : value.toListRef()) find_device(element);
    } else if (value.isDevice() && value.toDevice().type() == kNpu && !device_) {
      device_ = with_index(value.toDevice());
    }
  }

  IValue translated(const IValue& value) {
    if (value.isTensor()) return stand_in(value.toTensor());
    if (value.isDevice()) return IValue(c10::Device(c10::kCPU));
    if (value.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& tensor : value.toTensorVector()) list.push_back(stand_in(tensor));
      return list;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> list;
      for (const std::optional<Tensor>& tensor : value.toOptionalTensorVector()) {
        list.push_back(tensor ? std::make_optional(stand_in(*tensor)) : std::nullopt);
      }
      return list;
    }
    return value;
  }

  Tensor stand_in(const Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    if (tensor.device().type() != kNpu) {
      // A single number may stay on the host, as on real devices.
      TORCH_CHECK(
          !device_ || tensor.dim() == 0, "Expected all tensors to be on the same device, but ",
          schema_.name(), " got one of shape ", tensor.sizes(), " on ", tensor.device(),
          " beside others on ", device_.value_or(tensor.device()));
      return tensor;
    }
    TORCH_CHECK(
        tensor.device() == device_, "Expected all tensors to be on the same device, but ",
        schema_.name(), " got one on ", tensor.device(), " beside others on ", *device_);
    pairs_.emplace_back(tensor, same_bytes(tensor));
    return pairs_.back().second;
  }

  // An `out` argument that the kernel has enlarged.
  static void take_over_resize(const Tensor& tensor, const Tensor& stand_in) {
    if (tensor.sizes() == stand_in.sizes()) return;
    tensor.resize_(stand_in.sizes());
    same_bytes(tensor).copy_(stand_in);
  }

  IValue translated_back(const IValue& value) {
    if (value.isTensor()) return on_device(value.toTensor());
    if (value.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& tensor : value.toTensorVector()) list.push_back(on_device(tensor));
      return list;
    }
    // A plain number has left the device.
    if (value.isScalar() || value.isBool()) note("to host", "", 1);
    return value;
  }

  Tensor on_device(const Tensor& result) {
    if (!result.defined()) return result;
    for (const auto& [tensor, stand_in] : pairs_) {
      if (result.is_same(stand_in)) return tensor;
      if (result.has_storage() && result.storage().is_alias_of(stand_in.storage())) {
        return view_of(tensor, result);
      }
    }
    return moved(result, *device_);
  }

  // A view on the device's tensor with the shape of a view on its stand-in.
  static Tensor view_of(const Tensor& tensor, const Tensor& shaped) {
    auto view = at::detail::make_tensor<c10::TensorImpl>(
        c10::TensorImpl::VIEW, c10::Storage(tensor.storage()), tensor.key_set(), shaped.dtype());
    view.unsafeGetTensorImpl()->set_sizes_and_strides(
        shaped.sizes(), shaped.strides(), shaped.storage_offset());
    return view;
  }

  const c10::OperatorHandle& op_;
  const c10::FunctionSchema& schema_;
  std::optional<c10::Device> device_;
  std::vector<std::pair<Tensor, Tensor>> pairs_;
};

void fall_back(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  Call(op).run(stack);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&fall_back>());
}

}  // namespace

Tensor same_bytes(const Tensor& tensor) {
  // The copied storage keeps the bytes alive. An `out` argument may be enlarged: then the CPU's
  // allocator gives it other bytes, and take_over_resize brings them back.
  auto* owner = new c10::Storage(tensor.storage());
  const auto release = [](void* context) { delete static_cast<c10::Storage*>(context); };
  c10::Storage storage(
      c10::Storage::use_byte_size_t(), owner->nbytes(),
      c10::DataPtr(owner->mutable_data(), owner, release, c10::kCPU), c10::GetCPUAllocator(),
      /*resizable=*/true);
  auto result = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
  auto* impl = result.unsafeGetTensorImpl();
  impl->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) impl->set_wrapped_number(true);
  return result;
}

}  // namespace simnpu
