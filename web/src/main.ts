import { mount } from "svelte";
import App from "./App.svelte";
import "./base.css";
import { session } from "./api";

session.takeTokenFromAddress();
const target = document.getElementById("app");
if (target) mount(App, { target });
