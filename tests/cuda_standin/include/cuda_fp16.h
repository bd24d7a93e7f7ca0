// Not emulated: a kernel that needs this header is refused when it is compiled.
#error "cuda_fp16.h is not emulated"
