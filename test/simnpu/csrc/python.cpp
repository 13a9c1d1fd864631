// What Python sees; package/ builds its public names on it.
#include "hccl.h"
#include "simnpu.h"

#include <torch/csrc/utils/pybind.h>

namespace py = pybind11;
using namespace simnpu;

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  module.def("num_devices", &num_devices);
  module.def("current_device", [] { return int(current_device()); });
  module.def("set_device", [](int index) { set_device(static_cast<c10::DeviceIndex>(index)); });
  module.def("use_device", &use_device);
  module.def("is_initialized", &is_initialized);
  module.def("is_in_bad_fork", &is_in_bad_fork);
  module.def("memory_use", [](int index) {
    const auto use = memory_use(static_cast<c10::DeviceIndex>(index));
    return std::make_tuple(use.now, use.peak);
  });
  module.def("reset_peak", [](int index) { reset_peak(static_cast<c10::DeviceIndex>(index)); });
  module.def("default_generator", [](int index) {
    return default_generator(static_cast<c10::DeviceIndex>(index));
  });
  module.def("note", [](const std::string& kind) { note(kind); });
  module.def("events", [] {
    std::vector<std::tuple<std::string, std::string, int64_t>> result;
    for (const auto& event : events()) result.emplace_back(event.kind, event.dtype, event.numel);
    return result;
  });
  py::class_<Hccl, c10d::Backend, c10::intrusive_ptr<Hccl>>(module, "Hccl")
      .def(py::init<c10::intrusive_ptr<c10d::Backend>>());
}
