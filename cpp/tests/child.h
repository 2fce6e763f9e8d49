// Checks in a process of their own: what ends it, or changes its limits, ends or changes no other.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include "check.h"

namespace quancrypt::testing {

/// What `body` says in a child process: its checks, or that it was killed.
template <class Body>
bool holds_in_child(const Body& body) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    const int before = failures();
    body();
    std::fflush(stdout);
    _exit(failures() == before ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace quancrypt::testing
