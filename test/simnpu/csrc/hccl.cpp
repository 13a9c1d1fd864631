#include "hccl.h"

#include "simnpu.h"

#include <torch/library.h>

namespace simnpu {
namespace {

using Tensors = std::vector<at::Tensor>;

// Done when it is made; its future holds the device's tensors, as DDP expects.
class Done : public c10d::Work {
 public:
  explicit Done(Tensors results) : results_(std::move(results)) {
    std::vector<c10::Device> devices;
    for (const auto& tensor : results_) devices.push_back(tensor.device());
    future_ = c10::make_intrusive<c10::ivalue::Future>(
        c10::ListType::create(c10::TensorType::get()), devices);
    future_->markCompleted(c10::IValue(results_));
  }

  bool isCompleted() override { return true; }
  bool isSuccess() const override { return true; }
  bool wait(std::chrono::milliseconds) override { return true; }
  void synchronize() override {}
  Tensors result() override { return results_; }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override { return future_; }

 private:
  Tensors results_;
  c10::intrusive_ptr<c10::ivalue::Future> future_;
};

Tensors aliases(const Tensors& tensors) {
  Tensors result;
  for (const auto& tensor : tensors) {
    TORCH_CHECK(
        tensor.device() == c10::Device(kNpu, current_device()),
        "hccl: a tensor on ", tensor.device(), ", but the current device is npu:",
        int(current_device()));
    result.push_back(same_bytes(tensor));
  }
  return result;
}

c10::intrusive_ptr<c10d::Work> finished(
    const c10::intrusive_ptr<c10d::Work>& work, const Tensors& results) {
  work->wait();
  return c10::make_intrusive<Done>(results);
}

// Collectives have no gradients. Newer torch knows that of this kind of device too; 2.6 did not.
TORCH_LIBRARY_IMPL(c10d, AutogradPrivateUse1, library) {
  for (const char* name : {"broadcast_", "allreduce_", "allgather_", "barrier"}) {
    library.impl(name, torch::CppFunction::makeFallthrough());
  }
}

}  // namespace

Hccl::Hccl(c10::intrusive_ptr<c10d::Backend> gloo)
    : Backend(gloo->getRank(), gloo->getSize()), gloo_(std::move(gloo)) {}

c10::intrusive_ptr<c10d::Work> Hccl::broadcast(
    Tensors& tensors, const c10d::BroadcastOptions& options) {
  Tensors same = aliases(tensors);
  return finished(gloo_->broadcast(same, options), tensors);
}

c10::intrusive_ptr<c10d::Work> Hccl::allreduce(
    Tensors& tensors, const c10d::AllreduceOptions& options) {
  note("all-reduce");
  Tensors same = aliases(tensors);
  return finished(gloo_->allreduce(same, options), tensors);
}

c10::intrusive_ptr<c10d::Work> Hccl::allgather(
    std::vector<Tensors>& outputs, Tensors& inputs, const c10d::AllgatherOptions& options) {
  std::vector<Tensors> same_outputs;
  for (const auto& output : outputs) same_outputs.push_back(aliases(output));
  Tensors same_inputs = aliases(inputs);
  return finished(gloo_->allgather(same_outputs, same_inputs, options), outputs.at(0));
}

c10::intrusive_ptr<c10d::Work> Hccl::barrier(const c10d::BarrierOptions& options) {
  return finished(gloo_->barrier(options), {});
}

}  // namespace simnpu
