// JavaScript is checked against the typings of this package alone: those of the others ask for annotations.
declare module "@fastify/cookie";
declare module "@fastify/session";
declare module "express";
declare module "express-session";
declare module "fastify";
