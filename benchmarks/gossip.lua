-- POSTs of bars whose volume grows, so that each changes the market. Arguments: a file with a bar
-- a line, without its volume and what follows; bars a request; the first volume; the token.
dofile("benchmarks/report.lua")

local heads, size, volume, headers, last = {}, 1, 0, {}, 0

function init(args)
  for line in io.lines(args[1]) do heads[#heads + 1] = line end
  size, volume = tonumber(args[2]), tonumber(args[3])
  headers["Content-Type"] = "application/json"
  headers["Authorization"] = "Bearer " .. args[4]
end

local function bar()
  last = last % #heads + 1
  if last == 1 then volume = volume + 1 end
  return heads[last] .. string.format("%.0f}", volume)
end

function request()
  if size == 1 then return wrk.format("POST", nil, headers, bar()) end
  local bars = {}
  for i = 1, size do bars[i] = bar() end
  return wrk.format("POST", nil, headers, "[" .. table.concat(bars, ",") .. "]")
end
