declare module "virtual:zstd" {
  /** URL of the zstd decoder. */
  const url: string;
  export default url;
}

/** Of the build: what git describes, or the package's version. */
declare const __PENSTOCK_VERSION__: string;
