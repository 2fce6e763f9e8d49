// Runs the tests of this folder.
#include <cstdio>

#include "base/thread_pool.h"
#include "secrets.h"

using namespace quancrypt;
using namespace quancrypt::testing;

int main() {
  if (!checker_runs()) {
    std::printf("run this test under valgrind, which reports what depends on secrets\n");
    return 1;
  }
  set_num_threads(1);
  return testing::run_all();
}
