-- POSTs of one implausible bar to the public door, and how many were refused how.
local threads = {}
local bar = '{"symbol":"VCB","time":"2025-08-15","open":9e9,"high":9e9,"low":9e9,"close":9e9,"volume":1}'

function setup(thread) threads[#threads + 1] = thread end

function init()
  forbidden, limited, others = 0, 0, 0
  wrk.method, wrk.body = "POST", bar
  wrk.headers["Content-Type"] = "application/json"
end

function response(status)
  if status == 403 then
    forbidden = forbidden + 1
  elseif status == 429 then
    limited = limited + 1
  else
    others = others + 1
  end
end

-- One line that a program reads: microseconds, then answers 403, 429, and any other or none.
function done(summary)
  local e = summary.errors
  local counts = { 0, 0, e.connect + e.read + e.write + e.timeout }
  for _, thread in ipairs(threads) do
    for i, name in ipairs({ "forbidden", "limited", "others" }) do
      counts[i] = counts[i] + thread:get(name)
    end
  end
  io.write(string.format("FLOOD %d %d %d %d\n", summary.duration, counts[1], counts[2], counts[3]))
end
