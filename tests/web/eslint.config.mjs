import js from "@eslint/js";
import globals from "globals";

export default [
  { files: ["**/*.mjs"], ...js.configs.recommended },
  {
    files: ["**/*.mjs"],
    languageOptions: { ecmaVersion: 2024, sourceType: "module" },
    rules: { eqeqeq: "error", "no-var": "error", "prefer-const": "error", "no-implied-eval": "error" },
  },
  {
    files: ["src/hilum/service/web/js/*.mjs"],
    languageOptions: { globals: globals.browser },
    rules: {
      "max-lines": ["error", 400],
      "max-lines-per-function": ["error", { max: 60, skipComments: true, skipBlankLines: true }],
      "no-restricted-properties": [
        "error",
        { property: "innerHTML" },
        { property: "outerHTML" },
        { property: "insertAdjacentHTML" },
      ],
    },
  },
  { files: ["tests/web/**/*.mjs"], languageOptions: { globals: globals.nodeBuiltin } },
];
