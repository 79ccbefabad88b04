package video

import "time"

// deadline bounds each wait for another process.
const deadline = 2 * time.Minute
