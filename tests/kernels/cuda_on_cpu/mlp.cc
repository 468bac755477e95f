// mlp.cu, and the shared memory that it asks for by size.

#include "mlp.cu"

namespace dreamjax {
namespace {

alignas(32) thread_local float memory[kMaxBytes / sizeof(float)];

}  // namespace
}  // namespace dreamjax
