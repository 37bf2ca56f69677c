// SPDX-License-Identifier: Apache-2.0
#include "base/thread_count.h"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string_view>

#include "base/check.h"
#include "base/system.h"

namespace simdformer {
namespace {

constexpr int kMaxThreads = 1024;
std::atomic<int> thread_limit{kMaxThreads};

double smaller_limit(double a, double b) {
  if (a <= 0 || b <= 0) return std::max(a, b);
  return std::min(a, b);
}

// The first bytes of a file; empty if there is none.
std::string contents(const std::string& path) {
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  const std::unique_ptr<std::FILE, Close> file(std::fopen(path.c_str(), "rb"));
  std::string text(file ? 65536 : 0, '\0');
  if (file) text.resize(std::fread(text.data(), 1, text.size(), file.get()));
  return text;
}

// Removes and returns the text before a separator; the separator is removed too.
std::string_view cut(std::string_view& text, char separator) {
  const size_t end = std::min(text.find(separator), text.size());
  const std::string_view part = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return part;
}

// Microseconds, or 0 without a limit ("max" or -1).
double microseconds(std::string_view text) {
  int64_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return static_cast<double>(std::max<int64_t>(number, 0));
}

double ratio(double quota, double period) { return period > 0 ? quota / period : 0; }

// "200000 100000" or "max 100000"
double read_cpu_max(const std::string& file) {
  const std::string text = contents(file);
  std::string_view rest(text);
  const double quota = microseconds(cut(rest, ' '));
  return ratio(quota, microseconds(rest));
}

double read_cfs_quota(const std::string& folder) {
  return ratio(microseconds(contents(folder + "/cpu.cfs_quota_us")),
               microseconds(contents(folder + "/cpu.cfs_period_us")));
}

// The lowest limit, from the process's own group up to the root of the hierarchy.
template <typename Read>
double limit_up_the_tree(const std::string& mount, std::string group, Read read) {
  double limit = read(mount);
  while (group.size() > 1) {
    limit = smaller_limit(limit, read(mount + group));
    group.resize(group.find_last_of('/'));
  }
  return limit;
}

bool lists_cpu_controller(std::string_view controllers) {
  while (!controllers.empty()) {
    if (cut(controllers, ',') == "cpu") return true;
  }
  return false;
}

// A positive integer from the environment, or 0.
int env_count(const char* name) {
  const char* text = std::getenv(name);
  if (!text) return 0;
  // OMP_NUM_THREADS may be a list with one number per nesting level; the first one applies here.
  const std::string_view value(text);
  int count = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), count);
  const bool whole = end == value.data() + value.size() || *end == ',';
  return error == std::errc() && whole && count > 0 ? count : 0;
}

ThreadCount read_thread_count() {
  const CpuCount cpus = usable_cpus();
  ThreadCount threads{cpus.count, cpus.source};
  const double quota = cgroup_cpu_limit("");
  if (quota > 0 && quota < threads.count) {
    threads = {std::max(1, static_cast<int>(quota)), concat("cgroup quota of ", quota, " CPUs")};
  }
  const bool own = env_count("SIMDFORMER_NUM_THREADS") > 0;
  const char* name = own ? "SIMDFORMER_NUM_THREADS" : "OMP_NUM_THREADS";
  const int wanted = env_count(name);
  if (wanted > 0 && wanted <= threads.count) threads = {wanted, concat(name, "=", wanted)};
  return threads;
}

}  // namespace

double cgroup_cpu_limit(const std::string& root) {
  const std::string groups = contents(root + "/proc/self/cgroup");
  double limit = 0;
  // Lines are "0::/group" (v2) or "4:cpu,cpuacct:/group" (v1).
  for (std::string_view rest(groups); !rest.empty();) {
    std::string_view line = cut(rest, '\n');
    if (std::count(line.begin(), line.end(), ':') < 2) continue;
    cut(line, ':');
    const std::string_view controllers = cut(line, ':');
    const std::string group(line);
    const std::string mount = root + "/sys/fs/cgroup";
    if (controllers.empty()) {
      const auto read = [](const std::string& dir) { return read_cpu_max(dir + "/cpu.max"); };
      limit = smaller_limit(limit, limit_up_the_tree(mount, group, read));
    } else if (lists_cpu_controller(controllers)) {
      for (const char* name : {"/cpu", "/cpu,cpuacct"}) {
        limit = smaller_limit(limit, limit_up_the_tree(mount + name, group, read_cfs_quota));
      }
    }
  }
  return limit;
}

const ThreadCount& default_thread_count() {
  static const ThreadCount threads = read_thread_count();
  return threads;
}

void limit_threads(int limit) {
  check(limit >= 1, "limit must be at least 1, got ", limit);
  thread_limit = limit < default_thread_count().count ? limit : kMaxThreads;
}

ThreadCount thread_count() {
  const int limit = thread_limit;
  if (limit == kMaxThreads) return default_thread_count();
  return {limit, concat("a limit of ", limit, " set in this process")};
}

int threads_of_call(int num_threads) {
  check(num_threads >= 0 && num_threads <= kMaxThreads, "num_threads must be in [0, ", kMaxThreads,
        "], got ", num_threads);
  const int limit = thread_limit;
  return std::min(limit, num_threads > 0 ? num_threads : default_thread_count().count);
}

}  // namespace simdformer
