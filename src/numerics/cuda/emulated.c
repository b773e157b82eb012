// The kernels for the emulator.

#include "kernels.cu"
