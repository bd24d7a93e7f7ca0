// Not emulated: a kernel that needs this header is refused when it is compiled.
#error "cuda_fp8.h is not emulated"
