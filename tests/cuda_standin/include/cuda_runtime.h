// Not emulated: a kernel that needs this header is refused when it is compiled.
#error "cuda_runtime.h is not emulated"
