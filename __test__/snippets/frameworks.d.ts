// JavaScript is checked only against the typings of this package: those of the frameworks need annotations.
declare module "@fastify/cookie";
declare module "@fastify/session";
declare module "express";
declare module "express-session";
declare module "fastify";
