declare module "virtual:zstd" {
  /** URL of the zstd decoder. */
  const url: string;
  export default url;
}
