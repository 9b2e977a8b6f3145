// Answers PyTorch's questions about the CUDA build as a machine with one GPU and cuDNN would, so that fake tensors on
// the device "cuda" pass through autograd, autocast and the choice of kernels on a machine without a driver. Nothing is
// computed; pinned memory is ordinary memory. Built and preloaded by tests/conftest.py; tests/fake_cuda.py runs on it.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CPUAllocator.h>

namespace {

struct OneGpuWithoutDriver final : at::CUDAHooksInterface {
  // The device.
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool hasCUDA() const override { return true; }
  int getNumGPUs() const override { return 1; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex current_device() const override { return 0; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return false; }
  c10::Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }

  // cuDNN: which convolutions and norms it takes, and in which formats, follows from these.
  bool hasCuDNN() const override { return true; }
  bool compiledWithCuDNN() const override { return true; }
  long versionCuDNN() const override { return 91000; }
  long versionRuntimeCuDNN() const override { return 91000; }
  bool supportsBFloat16ConvolutionWithCuDNNv8() const override { return true; }
  bool supportsDepthwiseConvolutionWithCuDNN() const override { return true; }
  bool supportsDilatedConvolutionWithCuDNN() const override { return true; }
  double batchnormMinEpsilonCuDNN() const override { return 1e-5; }
};

}  // namespace

namespace at::detail {

const CUDAHooksInterface& getCUDAHooks() {
  static const auto* hooks = new OneGpuWithoutDriver();
  return *hooks;
}

}  // namespace at::detail
