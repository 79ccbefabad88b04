// Writes the streams beside this file anew: node make_streams.mjs (needs ffmpeg with libx264 and libvpx).
// Each picture is 320×240 with four quarters: red, green, blue, and a grey of 20·n in picture n. The codecs are
// used as the agent uses them: BT.601 limited range, which the streams do not say, and one picture out for one in.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const width = 320;
const height = 240;
const count = 12;
const raw = Buffer.alloc(width * height * 3 * count);
for (let n = 0; n < count; n++) {
  const colours = [
    [200, 40, 40],
    [40, 180, 60],
    [50, 60, 210],
    [20 * n, 20 * n, 20 * n],
  ];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const quarter = (x < width / 2 ? 0 : 1) + (y < height / 2 ? 0 : 2);
      raw.set(colours[quarter], ((n * height + y) * width + x) * 3);
    }
  }
}

function ffmpeg(file, ...args) {
  const input = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", `${width}x${height}`, "-i", "-"];
  const path = fileURLToPath(new URL(file, import.meta.url));
  const { status, stderr } = spawnSync(
    "ffmpeg",
    ["-y", "-loglevel", "error", "-bitexact", ...input, ...args, path],
    { input: raw, maxBuffer: 1 << 26 },
  );
  if (status !== 0) {
    throw new Error(String(stderr));
  }
}

const colours = ["-vf", "scale=out_color_matrix=bt601:out_range=tv", "-pix_fmt", "yuv420p"];
// A delimiter before each access unit lets tests cut the stream; SEI (type 6) would name the encoder.
ffmpeg(
  "quarters.h264",
  ...colours,
  ..."-c:v libx264 -profile:v baseline -preset fast -tune zerolatency -qp 14".split(" "),
  ..."-x264-params aud=1:keyint=1000 -bsf:v filter_units=remove_types=6 -f h264".split(" "),
);
ffmpeg(
  "quarters.ivf",
  ...colours,
  ..."-c:v libvpx -b:v 2M -deadline realtime -lag-in-frames 0 -auto-alt-ref 0 -g 1000 -f ivf".split(
    " ",
  ),
);
ffmpeg("quarters.jpg", ..."-frames:v 1 -q:v 2 -pix_fmt yuvj420p".split(" "));
