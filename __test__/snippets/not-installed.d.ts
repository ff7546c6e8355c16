// Modules that pages use and this repository does not install.
declare module "@fluidauth/express";
declare module "@nestjs/common";
declare module "@nestjs/core";
declare module "@nestjs/platform-express" {
  // biome-ignore lint/suspicious/noExplicitAny: as the others
  export type NestExpressApplication = any;
}
declare module "next";
