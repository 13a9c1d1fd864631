// Devices, memory, streams, generators, and what is recorded for the tests.
#include "simnpu.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/GeneratorForPrivateuseone.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <pthread.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <map>
#include <mutex>

namespace simnpu {
namespace {

constexpr int kMaxDevices = 8;
constexpr size_t kAlignment = 64;

std::mutex mutex;
std::vector<Event> recorded;
std::array<MemoryUse, kMaxDevices> memory;
std::map<const char*, size_t> pinned;  // begin -> bytes
std::atomic<bool> initialized{false};
std::atomic<bool> bad_fork{false};
thread_local c10::DeviceIndex device_of_thread = 0;
thread_local std::array<c10::StreamId, kMaxDevices> stream_of_thread{};

void note_fork() {
  bad_fork = initialized.load();
}

char* host_memory(size_t num_bytes) {
  void* memory = nullptr;
  TORCH_CHECK(posix_memalign(&memory, kAlignment, num_bytes) == 0, "no memory: ", num_bytes);
  return static_cast<char*>(memory);
}

struct Block {
  char* bytes;
  size_t num_bytes;
  c10::DeviceIndex device;
};

void free_block(void* context) {
  auto* block = static_cast<Block*>(context);
  {
    std::lock_guard<std::mutex> lock(mutex);
    memory[block->device].now -= static_cast<int64_t>(block->num_bytes);
  }
  std::free(block->bytes);
  delete block;
}

struct DeviceAllocator : c10::Allocator {
  c10::DataPtr allocate(size_t num_bytes) override {
    use_device();
    const auto index = current_device();
    const c10::Device device(kNpu, index);
    if (num_bytes == 0) return {nullptr, nullptr, [](void*) {}, device};
    auto* block = new Block{host_memory(num_bytes), num_bytes, index};
    std::lock_guard<std::mutex> lock(mutex);
    auto& use = memory[index];
    use.now += static_cast<int64_t>(num_bytes);
    use.peak = std::max(use.peak, use.now);
    return {block->bytes, block, free_block, device};
  }

  void copy_data(void* to, const void* from, size_t num_bytes) const override {
    default_copy_data(to, from, num_bytes);
  }
};

void free_pinned(void* bytes) {
  {
    std::lock_guard<std::mutex> lock(mutex);
    pinned.erase(static_cast<char*>(bytes));
  }
  std::free(bytes);
}

struct PinnedAllocator : c10::Allocator {
  c10::DataPtr allocate(size_t num_bytes) override {
    char* bytes = host_memory(num_bytes);
    std::lock_guard<std::mutex> lock(mutex);
    pinned[bytes] = num_bytes;
    return {bytes, bytes, free_pinned, c10::kCPU};
  }

  c10::DeleterFnPtr raw_deleter() const override { return free_pinned; }

  void copy_data(void* to, const void* from, size_t num_bytes) const override {
    default_copy_data(to, from, num_bytes);
  }
};

DeviceAllocator device_allocator;
PinnedAllocator pinned_allocator;

// Draws with a CPU generator, which the CPU's kernels get in its place.
struct DeviceGenerator : c10::GeneratorImpl {
  explicit DeviceGenerator(c10::DeviceIndex index)
      : GeneratorImpl({kNpu, index}, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)),
        twin(at::detail::createCPUGenerator()) {}

  void set_current_seed(uint64_t seed) override { twin.set_current_seed(seed); }
  void set_offset(uint64_t) override { TORCH_CHECK(false, "the simulated npu has no offsets"); }
  uint64_t get_offset() const override { return 0; }
  uint64_t current_seed() const override { return twin.current_seed(); }
  uint64_t seed() override { return twin.seed(); }
  void set_state(const c10::TensorImpl& state) override {
    twin.unsafeGetGeneratorImpl()->set_state(state);
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return twin.unsafeGetGeneratorImpl()->get_state();
  }
  DeviceGenerator* clone_impl() const override {
    auto* copy = new DeviceGenerator(device().index());
    copy->twin = twin.clone();
    return copy;
  }

  at::Generator twin;
};

at::Generator new_generator(c10::DeviceIndex index) {
  return at::make_generator<DeviceGenerator>(index < 0 ? current_device() : index);
}

struct Hooks : at::PrivateUse1HooksInterface {
  bool hasPrimaryContext(c10::DeviceIndex) const override { return initialized; }
  void init() const override { use_device(); }
  // torch 2.6 has no such two hooks yet.
  bool isBuilt() const { return true; }
  bool isAvailable() const { return true; }
  c10::DeviceIndex deviceCount() const override {
    return static_cast<c10::DeviceIndex>(num_devices());
  }
  void setCurrentDevice(c10::DeviceIndex index) const override { set_device(index); }
  c10::DeviceIndex getCurrentDevice() const override { return current_device(); }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const override {
    const auto before = current_device();
    set_device(index);
    return before;
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex index) const override {
    return index < 0 ? current_device() : exchangeDevice(index);
  }
  at::Device getDeviceFromPtr(void*) const override { return {kNpu, current_device()}; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex index) const override {
    return default_generator(index < 0 ? current_device() : index);
  }
  at::Generator getNewGenerator(c10::DeviceIndex index) const override {
    return new_generator(index);
  }
  at::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  bool isPinnedPtr(const void* pointer) const override { return is_pinned(pointer); }
};

using Clock = std::chrono::steady_clock;

// All is done at once, in order: a stream is a number, an event the time of its record.
struct Guard : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kNpu; }
  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device before = getDevice();
    set_device(device.index());
    return before;
  }
  c10::Device getDevice() const override { return {kNpu, current_device()}; }
  void setDevice(c10::Device device) const override { set_device(device.index()); }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    if (device.index() >= 0) device_of_thread = device.index();
  }
  c10::DeviceIndex deviceCount() const noexcept override {
    return static_cast<c10::DeviceIndex>(num_devices());
  }

  c10::Stream getStream(c10::Device device) const noexcept override {
    const auto index = device.index() < 0 ? current_device() : device.index();
    return c10::Stream(c10::Stream::UNSAFE, {kNpu, index}, stream_of_thread[index]);
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::UNSAFE, with_index(device), 0);
  }
  c10::Stream getNewStream(c10::Device device, int) const override {
    static std::atomic<c10::StreamId> last{0};
    return c10::Stream(c10::Stream::UNSAFE, with_index(device), ++last);
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override {
    return getNewStream(device, 0);
  }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override {
    const c10::Stream before = getStream(stream.device());
    stream_of_thread[before.device_index()] = stream.id();
    return before;
  }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override { note("synchronize"); }
  void synchronizeDevice(const c10::DeviceIndex) const override { note("synchronize"); }

  void record(void** event, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag)
      const override {
    if (*event == nullptr) *event = new Clock::time_point;
    *static_cast<Clock::time_point*>(*event) = Clock::now();
  }
  void destroyEvent(void* event, const c10::DeviceIndex) const noexcept override {
    delete static_cast<Clock::time_point*>(event);
  }
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override { note("synchronize"); }
  double elapsedTime(void* first, void* second, const c10::DeviceIndex) const override {
    const auto took = *static_cast<Clock::time_point*>(second) -
        *static_cast<Clock::time_point*>(first);
    return std::chrono::duration<double, std::milli>(took).count();
  }
};

c10::impl::DeviceGuardImplRegistrar register_guard(kNpu, new Guard);

const bool registered = [] {
  at::RegisterPrivateUse1HooksInterface(new Hooks);
  c10::SetAllocator(kNpu, &device_allocator);
  pthread_atfork(nullptr, nullptr, note_fork);
  return true;
}();

}  // namespace

int num_devices() {
  static const int count = [] {
    const char* text = std::getenv("SIMNPU_DEVICES");
    const int wanted = text == nullptr ? 2 : std::atoi(text);
    return std::min(std::max(wanted, 0), kMaxDevices);
  }();
  return count;
}

c10::DeviceIndex current_device() {
  return device_of_thread;
}

void set_device(c10::DeviceIndex index) {
  if (index < 0) return;
  TORCH_CHECK(index < num_devices(), "Invalid device ID ", int(index), " of ", num_devices());
  device_of_thread = index;
}

c10::Device with_index(c10::Device device) {
  return {kNpu, device.index() < 0 ? current_device() : device.index()};
}

c10::Allocator* allocator() {
  return &device_allocator;
}

const at::Generator& default_generator(c10::DeviceIndex index) {
  static const std::vector<at::Generator> generators = [] {
    std::vector<at::Generator> all;
    for (int i = 0; i < num_devices(); ++i) all.push_back(new_generator(i));
    return all;
  }();
  return generators.at(index);
}

at::Generator cpu_twin(const at::Generator& generator) {
  return static_cast<DeviceGenerator*>(generator.unsafeGetGeneratorImpl())->twin;
}

void use_device() {
  TORCH_CHECK(
      !bad_fork,
      "Cannot re-initialize NPU in forked subprocess. To use NPU with multiprocessing, you must "
      "use the 'spawn' start method");
  initialized = true;
}

bool is_initialized() {
  return initialized && !bad_fork;
}

bool is_in_bad_fork() {
  return bad_fork;
}

MemoryUse memory_use(c10::DeviceIndex index) {
  std::lock_guard<std::mutex> lock(mutex);
  return memory.at(index);
}

void reset_peak(c10::DeviceIndex index) {
  std::lock_guard<std::mutex> lock(mutex);
  memory.at(index).peak = memory.at(index).now;
}

bool is_pinned(const void* pointer) {
  const auto* byte = static_cast<const char*>(pointer);
  std::lock_guard<std::mutex> lock(mutex);
  auto next = pinned.upper_bound(byte);
  if (next == pinned.begin()) return false;
  --next;
  return byte < next->first + next->second;
}

void note(std::string kind, std::string dtype, int64_t numel) {
  std::lock_guard<std::mutex> lock(mutex);
  recorded.push_back({std::move(kind), std::move(dtype), numel});
}

std::vector<Event> events() {
  std::lock_guard<std::mutex> lock(mutex);
  return recorded;
}

}  // namespace simnpu
